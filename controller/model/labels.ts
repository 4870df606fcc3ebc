import { FlockError } from './errors.ts';
import { quote } from './names.ts';

/** What describes a node: `dc=lon`, `rack=r1`, `disk=ssd`. `dc` and `rack` are labels like any other; placement knows them. */
export type Labels = Readonly<Record<string, string>>;

/** The data center of a node without a `dc` label. */
export const defaultDc = 'default';

const labelsMax = 16;
const labelPattern = /^[a-z][a-z0-9._-]{0,31}$/;
const valuePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/**
 * Labels of `dc=lon,disk=ssd`: label=value, separated by commas, sorted by label so that equal labels are equal texts.
 * Throws `invalid-option`.
 */
export function parseLabels(text: string): Labels {
  const labels = new Map<string, string>();
  for (const part of text.split(',')) {
    const [label = '', value = '', ...more] = part.trim().split('=');
    if (!labelPattern.test(label) || !valuePattern.test(value) || more.length > 0) {
      throw new FlockError(
        'invalid-option',
        `invalid label ${quote(part)}: use LABEL=VALUE, several with commas, such as dc=lon,disk=ssd (a label is a lower-case letter, then lower-case letters, digits, dots, underscores or hyphens)`,
      );
    }
    if (labels.has(label)) throw new FlockError('invalid-option', `label ${quote(label)} is given twice`);
    labels.set(label, value);
  }
  if (labels.size > labelsMax)
    throw new FlockError('invalid-option', `${labels.size} labels are too many, at most ${labelsMax}`);
  return Object.fromEntries([...labels].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

export function formatLabels(labels: Labels): string {
  return Object.entries(labels)
    .map(([label, value]) => `${label}=${value}`)
    .join(',');
}

/** The value of a node's label. Every node has a `dc`. */
export function labelOf(labels: Labels, label: string): string | null {
  if (Object.hasOwn(labels, label)) return labels[label] ?? null;
  return label === 'dc' ? defaultDc : null;
}

/** Whether a node has all the labels that are wanted. */
export function hasLabels(labels: Labels, wanted: Labels): boolean {
  for (const label in wanted) if (labelOf(labels, label) !== wanted[label]) return false;
  return true;
}
