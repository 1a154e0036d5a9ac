/** Reads the demo's sample data, as `data/make-places.ts` writes it. */

/** The keys are the columns of the file, and of the record set that `run.ts` makes of them in SQL. */
type SamplePlace = {
  readonly name: string
  readonly country: string
  readonly population: number
  readonly is_capital: boolean
  readonly org_id: string
  readonly longitude: number
  readonly latitude: number
}

export function parsePlaces(text: string): SamplePlace[] {
  const [, ...lines] = text.trimEnd().split('\n')
  return lines.map((line) => {
    const [name, country, population, isCapital, orgId, longitude, latitude] = line.split('\t')
    return {
      name: name!,
      country: country!,
      population: Number(population),
      is_capital: isCapital === '1',
      org_id: orgId!,
      longitude: Number(longitude),
      latitude: Number(latitude),
    }
  })
}
