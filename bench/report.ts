/** One line of the result. `target` null: printed to explain another line. */
export type Row = {
  readonly what: string;
  readonly flock: string;
  /** What it is compared with, and its figure; empty where the target is absolute. */
  readonly beside: string;
  /** What the target is about: a ratio, a difference or the figure itself. */
  readonly result: string;
  readonly target: string;
  readonly met: boolean | null;
};

export type Section = { readonly title: string; readonly rows: readonly Row[] };

type Limit = { readonly max: number } | { readonly min: number } | null;

export const ms = (value: number) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} ms`;

export function ratioRow(what: string, flock: string, beside: string, ratio: number, limit: Limit): Row {
  const unit = (value: number) => `${value.toFixed(2)}x`;
  return { what, flock, beside, ...judged(ratio, limit, unit) };
}

/** How much more flock takes. */
export function extraRow(what: string, flockMs: number, beside: string, besideMs: number, limit: Limit): Row {
  const sign = (value: number) => `${value < 0 ? '-' : '+'}${ms(Math.abs(value))}`;
  return { what, flock: ms(flockMs), beside: `${beside} ${ms(besideMs)}`, ...judged(flockMs - besideMs, limit, sign) };
}

export function figureRow(what: string, value: number, unit: (value: number) => string, limit: Limit): Row {
  return { what, flock: unit(value), beside: '', ...judged(value, limit, unit) };
}

function judged(value: number, limit: Limit, unit: (value: number) => string): Pick<Row, 'result' | 'target' | 'met'> {
  if (limit === null) return { result: unit(value), target: '', met: null };
  const isMax = 'max' in limit;
  const bound = isMax ? limit.max : limit.min;
  return {
    result: unit(value),
    target: `${isMax ? '<=' : '>='} ${unit(bound)}`,
    met: isMax ? value <= bound : value >= bound,
  };
}

/** Markdown, so that it can be read here and be put into docs/benchmarks.md as it is. */
export function table(rows: readonly Row[]): string {
  const header = ['', 'flock', 'beside', 'result', 'target', 'met'];
  const lines = rows.map(({ what, flock, beside, result, target, met }) => [
    what,
    flock,
    beside,
    result,
    target,
    met === null ? '' : met ? 'yes' : '**no**',
  ]);
  const widths = header.map((title, column) =>
    Math.max(3, title.length, ...lines.map((line) => line[column]?.length ?? 0)),
  );
  const format = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  return [format(header), format(widths.map((width) => '-'.repeat(width))), ...lines.map(format)].join('\n');
}
