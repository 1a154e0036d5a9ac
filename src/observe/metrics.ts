/** Counts what happens, for `/metrics` in the Prometheus text format. The rest of the code only says what it did. */
import { Counter, Gauge, Registry } from 'prom-client'

interface Gauges {
  readonly sockets: () => number
  readonly subscriptions: () => number
  readonly heldRows: () => number
  readonly queuedBytes: () => number
  readonly healthy: () => boolean
}

export class Metrics {
  readonly #registry = new Registry()
  // Counted for every frame of every socket, which is too often for more than an addition.
  #frames = 0
  #characters = 0
  readonly #classReads = this.#counter(
    'datum_class_reads_total',
    'Principal classes read for, in shared reads.',
  )
  readonly #sharedReads = this.#counter(
    'datum_shared_reads_total',
    'Statements that read for all classes of a batch.',
  )
  readonly #edits = new Counter({
    name: 'datum_edits_total',
    help: 'Edits by outcome: applied, or the code of the rejection.',
    labelNames: ['outcome'],
    registers: [this.#registry],
  })
  readonly #closes = new Counter({
    name: 'datum_sockets_closed_total',
    help: 'Sockets that the server closed, by close code.',
    labelNames: ['code'],
    registers: [this.#registry],
  })

  constructor() {
    this.#sum('datum_frames_sent_total', 'Frames sent to sockets.', () => this.#frames)
    this.#sum(
      'datum_characters_sent_total',
      'Characters of the frames sent to sockets.',
      () => this.#characters,
    )
  }

  frameSent(characters: number): void {
    this.#frames++
    this.#characters += characters
  }

  classReads(classes: number): void {
    this.#sharedReads.inc()
    this.#classReads.inc(classes)
  }

  edit(outcome: string): void {
    this.#edits.inc({ outcome })
  }

  closed(code: number): void {
    this.#closes.inc({ code: String(code) })
  }

  /** Registers values that are looked up when somebody asks. */
  watch({ sockets, subscriptions, heldRows, queuedBytes, healthy }: Gauges): void {
    this.#gauge('datum_sockets', 'Open sockets.', sockets)
    this.#gauge('datum_subscriptions', 'Open subscriptions.', subscriptions)
    this.#gauge('datum_held_rows', 'Rows that open subscriptions hold.', heldRows)
    this.#gauge('datum_queued_bytes', 'Bytes that wait for sockets that do not read.', queuedBytes)
    this.#gauge('datum_database_up', '1 if Postgres answered when it was last asked.', () =>
      healthy() ? 1 : 0,
    )
  }

  /** Where reads were answered from, where there is a replica to read from. */
  watchReads(counts: { readonly replica: number; readonly primary: number }): void {
    this.#sum('datum_replica_reads_total', 'Reads that the replica answered.', () => counts.replica)
    this.#sum(
      'datum_primary_reads_total',
      'Reads that the primary answered since the replica could not.',
      () => counts.primary,
    )
  }

  /** The Prometheus text format, version 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics()
  }

  #counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: [this.#registry] })
  }

  #sum(name: string, help: string, value: () => number): void {
    new Counter({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.reset()
        this.inc(value())
      },
    })
  }

  #gauge(name: string, help: string, value: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(value())
      },
    })
  }
}
