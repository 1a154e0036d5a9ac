/** Which seeds to run: what `--seeds` may say. */

/** `3`, `3..7`, `random`, and several of these with commas between. Null for anything else. */
export function parseSeeds(text: string): readonly number[] | null {
  const seeds: number[] = []
  for (const part of text.split(',')) {
    const range = /^(\d+)(?:\.\.(\d+))?$/.exec(part.trim())
    if (part.trim() === 'random') seeds.push(1 + Math.floor(Math.random() * 1_000_000))
    else if (range === null) return null
    else {
      const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])]
      if (last < first) return null
      for (let seed = first; seed <= last; seed++) seeds.push(seed)
    }
  }
  return seeds
}
