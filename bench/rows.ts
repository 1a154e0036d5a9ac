/** Every row, in the order in which the table shows them. */
import type { Row } from './row.ts'
import { fanOut } from './rows/fan-out.ts'

export const ROWS: readonly Row[] = [fanOut]
