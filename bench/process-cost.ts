/** What a process costs, as Linux accounts for it in /proc: see proc(5). */
import { readFile, writeFile } from 'node:fs/promises'

/** Linux reports times to user space in hundredths of a second, whatever the kernel's own tick (USER_HZ). */
const TICK_MS = 10

/** Milliseconds of CPU that the process has used in all its threads. */
export async function cpuMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  // The second field is the program's name in parentheses, which may hold anything; utime and stime are 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

/** Bytes of memory that the process has now, and the most that it had since {@link forgetPeak}. */
export async function memoryOf(pid: number): Promise<{ readonly resident: number; readonly peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN)
  return { resident: kib('VmRSS') * 1024, peak: kib('VmHWM') * 1024 }
}

export async function forgetPeak(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5')
}
