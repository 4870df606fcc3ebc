/** Remembers that something happened until somebody has waited for it: events between two waits become one. */
export type Latch = {
  open(): void;
  /** Resolves when it is open, closes it, and answers true; false when the signal fires first. */
  pass(signal: AbortSignal): Promise<boolean>;
};

export function createLatch(): Latch {
  let isOpen = false;
  let waiting: ((passed: boolean) => void) | null = null;
  return {
    open() {
      isOpen = true;
      waiting?.(true);
    },
    async pass(signal) {
      if (signal.aborted) return false;
      if (!isOpen) {
        const passed = await new Promise<boolean>((resolve) => {
          const stop = () => resolve(false);
          signal.addEventListener('abort', stop, { once: true });
          waiting = (result) => {
            signal.removeEventListener('abort', stop);
            resolve(result);
          };
        });
        waiting = null;
        if (!passed) return false;
      }
      isOpen = false;
      return true;
    },
  };
}
