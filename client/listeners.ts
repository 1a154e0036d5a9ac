/** Callbacks of the application. One that throws, or that causes the next event itself, does not disturb the others. */

export class Listeners<T> {
  readonly #callbacks = new Set<{ readonly call: (value: T) => void }>()
  readonly #waiting: T[] = []
  #emitting = false

  get size(): number {
    return this.#callbacks.size
  }

  /** Returns the function that unsubscribes. The same callback may be added twice. */
  add(call: (value: T) => void): () => void {
    const entry = { call }
    this.#callbacks.add(entry)
    return () => {
      this.#callbacks.delete(entry)
    }
  }

  /** Calls everybody. An event caused inside a callback waits, so that all callbacks see all events in one order. */
  emit(value: T): void {
    this.#waiting.push(value)
    if (this.#emitting) return
    this.#emitting = true
    while (this.#waiting.length > 0) {
      const next = this.#waiting.shift() as T
      for (const { call } of [...this.#callbacks]) {
        try {
          call(next)
        } catch (error) {
          // The application's bug, to be seen where uncaught errors are seen, and not to stop the sync.
          queueMicrotask(() => {
            throw error
          })
        }
      }
    }
    this.#emitting = false
  }
}
