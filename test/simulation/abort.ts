/**
 * Imported before everything else: AbortSignals that do the same in every run. Those of Node depend on the garbage collector
 * (`any` holds weakly what it was made of), so a seed would not always do the same; these are faster, too.
 */
type Listener = (() => void) | { handleEvent(): void };

class SimulatedSignal {
  aborted = false;
  reason: unknown = undefined;
  readonly #listeners = new Set<Listener>();
  readonly #dependents = new Set<SimulatedSignal>();

  static any(signals: readonly SimulatedSignal[]): SimulatedSignal {
    const made = new SimulatedSignal();
    for (const signal of signals) {
      if (signal.aborted) {
        made.abort(signal.reason);
        return made;
      }
      signal.#dependents.add(made);
    }
    return made;
  }

  static timeout(): never {
    throw new Error('simulation: AbortSignal.timeout uses the real clock');
  }

  addEventListener(_kind: 'abort', listener: Listener): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_kind: 'abort', listener: Listener): void {
    this.#listeners.delete(listener);
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason ?? new Error('This operation was aborted');
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) {
      if (typeof listener === 'function') listener();
      else listener.handleEvent();
    }
    for (const dependent of this.#dependents) dependent.abort(this.reason);
    this.#dependents.clear();
  }
}

class SimulatedController {
  readonly signal = new SimulatedSignal();
  abort(reason?: unknown): void {
    this.signal.abort(reason);
  }
}

Object.assign(globalThis, { AbortSignal: SimulatedSignal, AbortController: SimulatedController });
