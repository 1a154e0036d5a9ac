/** Every row, in the order in which the table shows them. */
import type { Row } from './row.ts'
import { appWrites } from './rows/app-writes.ts'
import { box } from './rows/box.ts'
import { client } from './rows/client.ts'
import { fanOut } from './rows/fan-out.ts'
import { fanOutOwn } from './rows/fan-out-own.ts'
import { latency } from './rows/latency.ts'
import { memory } from './rows/memory.ts'
import { processes } from './rows/processes.ts'
import { resume } from './rows/resume.ts'
import { snapshot } from './rows/snapshot.ts'
import { start } from './rows/start.ts'
import { storm } from './rows/storm.ts'

export const ROWS: readonly Row[] = [
  fanOut,
  fanOutOwn,
  latency,
  appWrites,
  box,
  snapshot,
  resume,
  storm,
  memory,
  start,
  client,
  processes,
]
