/** Every row, in the order in which the table shows them. */
import type { Row } from './row.ts'
import { fanOut } from './rows/fan-out.ts'
import { latency } from './rows/latency.ts'

export const ROWS: readonly Row[] = [fanOut, latency]
