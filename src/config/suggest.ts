/** Finds what somebody meant who mistyped a name. Used for keys of datum.yaml and for the command line. */
import { distance } from 'fastest-levenshtein'

/**
 * The known name nearest to `word`, or null if none is near: of few letters one or two may be wrong (two that changed
 * places count twice), of many three. Case, dashes and underscores do not count.
 */
function closest(word: string, known: Iterable<string>): string | null {
  const wanted = fold(word)
  let best: string | null = null
  let bestDistance = (wanted.length < 4 ? 1 : wanted.length < 9 ? 2 : 3) + 1
  for (const candidate of known) {
    const candidateDistance = distance(wanted, fold(candidate))
    if (candidateDistance < bestDistance) {
      best = candidate
      bestDistance = candidateDistance
    }
  }
  return best
}

/** ` Did you mean "port"?` or nothing, to put at the end of a sentence. */
export function didYouMean(word: string, known: Iterable<string>): string {
  const best = closest(word, known)
  return best === null ? '' : ` Did you mean "${best}"?`
}

const fold = (name: string) => name.toLowerCase().replace(/[-_]/g, '')
