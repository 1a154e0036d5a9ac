/**
 * JSON as nobody means it, for fast-check, as text: so that there can be keys twice, numbers that no double holds, and
 * `__proto__`. `hostile-messages.ts` puts it into messages, `wire-fuzz.test.ts` sends them.
 */
import fc, { type Arbitrary } from 'fast-check'
import { NESTING_MAX } from '../../src/wire/limits.ts'

/** A text that stands in everything sent, to be looked for in what must not repeat it. */
export const CANARY = 'canary-7f3a'

/** SQL, names of prototypes, and characters that one layer or another cannot hold. */
export const hostileString: Arbitrary<string> = fc.oneof(
  fc.constantFrom(
    '',
    "'; drop table features; --",
    "' or '1'='1",
    `x'); update features set org_id = 'b'; --`,
    '$1',
    '$$; select pg_sleep(9) $$',
    '"; drop schema datum cascade; --',
    "\\'; select 1; --",
    "(select set_config('datum.org_id', 'a', true))",
    'features; truncate features',
    '__proto__',
    'constructor',
    'prototype',
    'toString',
    'hasOwnProperty',
    'null',
    'NaN',
    '1e999',
    '\0',
    `a\0b`,
    '\ud800',
    '\udfff\ud800',
    '\ufeff',
    '\u202e\u0000\u2028',
    '👩‍👩‍👧‍👦',
    '%s%n%x',
    '../../../../etc/passwd',
    `\${process.exit(1)}`,
    '<script>alert(1)</script>',
    '0001-01-01 BC',
    'infinity',
    '294277-01-01',
    '{1,2',
    '\\xzz',
    CANARY,
  ),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.integer({ min: 200, max: 70_000 }).map((length) => 'x'.repeat(length)),
  fc.uuid(),
)

/** Numbers as JSON spells them, and what only looks like numbers. */
const hostileNumber = fc.oneof(
  fc.constantFrom(
    '1e-999',
    '-0',
    '12345678901234567890',
    '0.1e+2',
    '9007199254740993',
    '2147483648',
    '1e308',
    '-1',
    '0',
  ),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
  fc.integer().map(String),
)

const { value: shallowJson, leaf } = fc.letrec<{ value: string; leaf: string }>((tie) => ({
  leaf: fc.oneof(
    fc.constantFrom('null', 'true', 'false', '{}', '[]', '""', '{"__proto__":{"polluted":true}}'),
    hostileNumber,
    hostileString.map((text) => JSON.stringify(text)),
  ),
  value: fc.oneof(
    { maxDepth: 3 },
    tie('leaf'),
    fc.array(tie('value'), { maxLength: 4 }).map((items) => `[${items.join(',')}]`),
    fc.array(fc.tuple(hostileString, tie('value')), { maxLength: 4 }).map(object),
  ),
}))

/** Valid JSON, nested a little, and seldom up to and past the limit, since that is as far as such a message comes. */
export const hostileJson: Arbitrary<string> = fc.oneof(
  { weight: 40, arbitrary: shallowJson },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(NESTING_MAX - 5, NESTING_MAX, NESTING_MAX + 1, 5_000), leaf)
      .map(([levels, inner]) => `${'['.repeat(levels)}${inner}${']'.repeat(levels)}`),
  },
)

/** What a GeoJSON geometry must not be, and what it may be but nobody draws. */
export const hostileGeometry: Arbitrary<string> = fc.oneof(
  fc
    .tuple(
      fc.constantFrom(
        'Point',
        'MultiPoint',
        'LineString',
        'MultiLineString',
        'Polygon',
        'MultiPolygon',
        'GeometryCollection',
        'Feature',
        'FeatureCollection',
        'CircularString',
        'point',
        '',
      ),
      fc.oneof(
        fc.constantFrom(
          '[]',
          '[[]]',
          '[[[]]]',
          '[[[[]]]]',
          'null',
          '"8,47"',
          '{}',
          '[8.5]',
          '[8.5,47.5,1,2,3]',
          '[1e308,-1e308]',
          '[1e999,0]',
          '["8","47"]',
          '[null,null]',
          '[200,100]',
          '[-180,90]',
          '[180.0000001,0]',
          '[[8.5,47.5]]',
          '[[8.5,47.5],[8.5,47.5]]',
          '[[[8,47],[9,47],[9,48]]]',
          '[[[8,47],[9,48],[9,47],[8,48],[8,47]]]',
          '[[[[8,47],[9,47],[9,48],[8,47]]]]',
          '[[[8,47],[9,47],[9,48],[8,47]],[[0,0],[1,1],[0,0],[0,0]]]',
          '[[8,47],[9,null]]',
        ),
        hostileJson,
      ),
    )
    .map(([type, coordinates]) =>
      object([
        ['type', JSON.stringify(type)],
        ['coordinates', coordinates],
        ...(type === 'GeometryCollection'
          ? ([['geometries', '[{"type":"Point","coordinates":[8,47]}]']] as const)
          : []),
      ]),
    ),
  fc.constantFrom(
    'null',
    '{"type":"Point","coordinates":[8.5,47.5],"crs":{"type":"name","properties":{"name":"EPSG:3857"}}}',
    '{"type":"GeometryCollection","geometries":[]}',
    `${'{"type":"GeometryCollection","geometries":['.repeat(20)}${']}'.repeat(20)}`,
    '{"coordinates":[8.5,47.5]}',
  ),
  hostileJson,
)

/** An object's text; the members may repeat each other. */
export function object(members: readonly (readonly [name: string, json: string])[]): string {
  return `{${members.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(',')}}`
}
