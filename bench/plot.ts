/**
 * Draws how a row's figures grow with the number of sockets or rows, as SVG: both axes are logarithmic, so that what
 * grows in proportion is a straight line, and what does not grow is level. `markdown.ts` puts it into docs/bench.
 */
import type { Figure } from './row.ts'

interface Line {
  readonly name: string
  readonly isFloor: boolean
  readonly unit: string
  readonly points: readonly (readonly [size: number, value: number])[]
}

const WIDTH = 640
const HEIGHT = 380
const MARGIN = { left: 70, right: 20, top: 40, bottom: 90 }
/** Told apart by people who do not see red and green alike (Okabe and Ito's colours). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73']

/** Null where fewer than two sizes were measured. */
export function plot(title: string, figures: readonly Figure[]): string | null {
  const lines = linesOf(figures)
  const points = lines.flatMap(({ points }) => points)
  const sizes = [...new Set(points.map(([size]) => size))].sort((a, b) => a - b)
  if (sizes.length < 2) return null
  const x = scale(sizes, MARGIN.left + 20, WIDTH - MARGIN.right - 20)
  const y = scale(decadesAround(points.map(([, value]) => value)), HEIGHT - MARGIN.bottom, MARGIN.top)
  const names = [...new Set(lines.map(({ name }) => name))]
  const drawn = lines.map((line) => drawLine(line, COLOURS[names.indexOf(line.name) % COLOURS.length]!, x, y))
  const ticksX = sizes.map(
    (size) =>
      `<text x="${x(size)}" y="${HEIGHT - MARGIN.bottom + 18}" text-anchor="middle">${size.toLocaleString('en')}</text>`,
  )
  const ticksY = decadesAround(points.map(([, value]) => value)).map(
    (value) =>
      `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${y(value)}" y2="${y(value)}" stroke="#ccc"/>` +
      `<text x="${MARGIN.left - 8}" y="${y(value) + 4}" text-anchor="end">${value.toLocaleString('en')}</text>`,
  )
  const legend = lines.map(({ name, isFloor, unit }, index) => {
    const colour = COLOURS[names.indexOf(name) % COLOURS.length]
    const [left, top] = [MARGIN.left + (index % 2) * 280, HEIGHT - 44 + Math.floor(index / 2) * 16]
    const dash = isFloor ? ' stroke-dasharray="5 4"' : ''
    return (
      `<line x1="${left}" x2="${left + 26}" y1="${top - 4}" y2="${top - 4}" stroke="${colour}" stroke-width="2"${dash}/>` +
      `<text x="${left + 32}" y="${top}">${name}${isFloor ? ', the floor' : ''} (${unit})</text>`
    )
  })
  const height = HEIGHT + Math.max(0, Math.ceil(lines.length / 2) - 2) * 16
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<title>${title}: how it grows</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text x="${WIDTH / 2}" y="22" text-anchor="middle" font-size="15">${title}</text>`,
    ...ticksY,
    ...ticksX,
    ...drawn,
    ...legend,
    '</svg>\n',
  ].join('\n')
}

/** For each line of the figures two: what was measured, and its floor. */
function linesOf(figures: readonly Figure[]): Line[] {
  const lines = new Map<string, { unit: string; measured: [number, number][]; floor: [number, number][] }>()
  for (const { growth, measured, floor, unit } of figures) {
    if (growth === undefined) continue
    const line = lines.get(growth.line) ?? { unit, measured: [], floor: [] }
    lines.set(growth.line, line)
    line.measured.push([growth.size, measured])
    line.floor.push([growth.size, floor])
  }
  return [...lines].flatMap(([name, { unit, measured, floor }]) => [
    { name, unit, isFloor: false, points: measured },
    { name, unit, isFloor: true, points: floor },
  ])
}

function drawLine({ points, isFloor }: Line, colour: string, x: Scale, y: Scale): string {
  const path = points.map(([size, value]) => `${x(size).toFixed(1)},${y(value).toFixed(1)}`)
  const dash = isFloor ? ' stroke-dasharray="5 4"' : ''
  const dots = points.map(
    ([size, value]) =>
      `<circle cx="${x(size).toFixed(1)}" cy="${y(value).toFixed(1)}" r="3.5" fill="${colour}"/>`,
  )
  return `<polyline points="${path.join(' ')}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>${dots.join('')}`
}

type Scale = (value: number) => number

function scale(values: readonly number[], from: number, to: number): Scale {
  const [low, high] = [Math.log(Math.min(...values)), Math.log(Math.max(...values))]
  return (value) => from + ((Math.log(value) - low) / (high - low)) * (to - from)
}

/** The powers of ten that hold all values between them. */
function decadesAround(values: readonly number[]): number[] {
  const first = Math.floor(Math.log10(Math.min(...values)))
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(...values))))
  return Array.from({ length: last - first + 1 }, (_, n) => 10 ** (first + n))
}
