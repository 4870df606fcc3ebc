/** One line for each step of a program: what it is about, and what was found or done. */
export function say(step: string, text: string): void {
  console.log(`${step.padEnd(10)}${text}`);
}

/** Runs a program: its error is told in one line with its causes, and sets the exit status. */
export async function runProgram(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    console.error(`\nflock: ${describe(error)}`);
    process.exitCode = 1;
  }
}

export function requireRoot(): void {
  if (process.getuid?.() !== 0) throw new Error('only root can do this: run it as root, for example with sudo');
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}\n  because: ${describe(error.cause)}`;
}
