const nearMax = 3;
const typosMax = 2;
/** A name of which half was typed wrongly was not meant. */
const lettersPerTypo = 3;

/** The names that somebody who typed `text` may have meant, the likeliest first. */
export function nearNames(text: string, names: readonly string[]): readonly string[] {
  return names
    .map((name) => ({ name, distance: name.includes(text) || text.includes(name) ? 1 : typos(text, name) }))
    .filter(({ distance }) => distance <= Math.min(typosMax, Math.ceil(text.length / lettersPerTypo)))
    .toSorted((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, nearMax)
    .map(({ name }) => name);
}

/** Letters to add, to drop, to exchange, and neighbours to swap, to get from one to the other. */
function typos(a: string, b: string): number {
  let older: readonly number[] = [];
  let before: readonly number[] = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row += 1) {
    const now = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const differs = Number(a[row - 1] !== b[column - 1]);
      const isSwapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      now.push(
        Math.min(
          at(before, column - 1) + differs,
          at(before, column) + 1,
          at(now, column - 1) + 1,
          isSwapped ? at(older, column - 2) + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
    [older, before] = [before, now];
  }
  return at(before, b.length);
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
