/** What a process costs, as Linux accounts for it in /proc: see proc(5). */
import { readdir, readFile, writeFile } from 'node:fs/promises'

/** Milliseconds of CPU that the process has used in the threads that it has now, to the nanosecond (schedstat). */
export async function cpuMs(pid: number): Promise<number> {
  const threads = await readdir(`/proc/${pid}/task`)
  const used = await Promise.all(
    threads.map(async (thread) => {
      // A thread may have ended since they were listed.
      const text = await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').catch(() => '0')
      return Number(text.split(' ')[0])
    }),
  )
  return used.reduce((sum, nanoseconds) => sum + nanoseconds, 0) / 1e6
}

/** Bytes of memory that the process has now, and the most that it had since {@link forgetPeak}. */
export async function memoryOf(pid: number): Promise<{ readonly resident: number; readonly peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const kib = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN)
  return { resident: kib('VmRSS') * 1024, peak: kib('VmHWM') * 1024 }
}

export async function forgetPeak(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5')
}
