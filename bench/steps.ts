/** The life of a volume that has no content. */
export const steps = ['create', 'mount', 'unmount', 'remove'] as const;

export type Step = (typeof steps)[number];

export type Steps<Subject> = Readonly<Record<Step, (subject: Subject) => Promise<unknown>>>;

/** Milliseconds. */
export type Times = Record<Step, number>;
