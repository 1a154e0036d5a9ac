import { expect, test } from 'bun:test'
import { connected } from './connected.ts'
import { COUNTED, FakeWorld, PLACES, place, placeId, watch } from './fake-world.ts'

test('rows become features: the geometry apart, every other column a property, own edits applied', async () => {
  const world = new FakeWorld()
  const db = await connected(world, [place(1), place(2)])
  watch(db.update(placeId(2), { geom: { type: 'Point', coordinates: [9, 9] } }))
  expect(db.toGeoJSON()).toEqual({
    type: 'FeatureCollection',
    features: [
      {
        type: 'Feature',
        id: placeId(1),
        geometry: { type: 'Point', coordinates: [1, 1] },
        properties: { id: placeId(1), name: 'place 1', kind: null },
      },
      {
        type: 'Feature',
        id: placeId(2),
        geometry: { type: 'Point', coordinates: [9, 9] },
        properties: { id: placeId(2), name: 'place 2', kind: null },
      },
    ],
  })
})

test('the id of a feature is a number where the column has numbers', async () => {
  const db = await connected(new FakeWorld(), [{ ...place(1), id: 7 }], {}, COUNTED)
  expect(db.toGeoJSON().features[0]?.id).toBe(7)
})

test('rows without a geometry are left out', async () => {
  const db = await connected(new FakeWorld(), [place(1)])
  watch(db.insert({ name: 'nowhere' }))
  expect(db.rows.size).toBe(2)
  expect(db.toGeoJSON().features).toHaveLength(1)
  const table = { ...PLACES, geometryColumn: null }
  const list = await connected(new FakeWorld(), [place(1)], { bbox: undefined }, table)
  expect(list.toGeoJSON()).toEqual({ type: 'FeatureCollection', features: [] })
})

test('a column named __proto__ is a property and nothing else', async () => {
  const row = JSON.parse(
    `{"id":"${placeId(1)}","__proto__":{"x":1},"geom":{"type":"Point","coordinates":[0,0]}}`,
  )
  const db = await connected(new FakeWorld(), [row])
  const { properties } = db.toGeoJSON().features[0]!
  expect(JSON.stringify(properties)).toBe(`{"id":"${placeId(1)}","__proto__":{"x":1}}`)
  expect((properties as { x?: unknown }).x).toBeUndefined()
})
