import { messageOf } from '../model/errors.ts';
import type { DockerSource } from './source.ts';

/**
 * What Docker is asked about single containers by looks that wait for none of them for long: Docker holds a container for as long as it
 * starts it, the mounts of all its volumes included, and answers nothing about it meanwhile; one whose layer is broken it never describes.
 */
export type Questions = {
  /** `isFirst`: nothing is known of any container yet. Throws where Docker as a whole is away. */
  ask(id: string, name: string, isFirst: boolean, signal: AbortSignal): Promise<Described>;
  /** Something has happened to it (null: maybe to any), so that what was asked before may be answered as it was before. */
  outdate(container: string | null): void;
  /** Others are forgotten. */
  keep(ids: ReadonlySet<string>): void;
};

export type Described =
  /** Null: the container is gone. */
  | { readonly kind: 'answer'; readonly answer: unknown }
  /** Null: it may just need longer. */
  | { readonly kind: 'none'; readonly why: string | null };

export type QuestionsParts = {
  readonly source: Pick<DockerSource, 'inspect'>;
  /** See DockerTimes. */
  readonly times: { readonly patienceMs: number; readonly firstPatienceMs: number; readonly brokenMs: number };
  /** The container is to be looked at soon. */
  readonly want: (container: string) => void;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
};

type Question = {
  readonly said: Promise<Said>;
  isAnswered: boolean;
  /** Its look has not waited for it. */
  isLate: boolean;
  /** Something has happened to the container since it was asked. */
  isOld: boolean;
};

type Said = Described | { readonly kind: 'failed'; readonly error: unknown };

export function createQuestions({ source, times, want, sleep }: QuestionsParts): Questions {
  /** By container: asked, and no look has taken the answer yet. */
  const questions = new Map<string, Question>();
  /** Could not be described, and is asked about again after a while. */
  const broken = new Set<string>();
  /** What came instead of the last answer about a container. */
  const unanswered = new Map<string, string>();

  function begin(id: string): Question {
    const said = source.inspect(id).then(
      (answer): Said => {
        unanswered.delete(id);
        return { kind: 'answer', answer };
      },
      (error: unknown): Said => {
        unanswered.set(id, messageOf(error));
        return { kind: 'failed', error };
      },
    );
    const question: Question = { said, isOld: false, isLate: false, isAnswered: false };
    void said.then(() => {
      question.isAnswered = true;
      if (question.isLate) want(id);
    });
    questions.set(id, question);
    return question;
  }

  async function wait(question: Question, ms: number, signal: AbortSignal): Promise<Said> {
    const inTime = new AbortController();
    const late = sleep(ms, AbortSignal.any([signal, inTime.signal])).then((): Said => {
      // Else nobody would see the answer.
      if (!question.isAnswered) question.isLate = true;
      return { kind: 'none', why: null };
    });
    const said = await Promise.race([question.said, late]);
    inTime.abort();
    return said;
  }

  async function ask(id: string, name: string, isFirst: boolean, signal: AbortSignal): Promise<Described> {
    const before = questions.get(id);
    const question = before ?? begin(id);
    let said: Said = { kind: 'none', why: null };
    if (question.isAnswered) said = await question.said;
    // What has kept one look waiting keeps no other one, unless nothing is known yet.
    else if (isFirst) said = await wait(question, times.firstPatienceMs, signal);
    else if (before === undefined) said = await wait(question, times.patienceMs, signal);
    else question.isLate = true;
    if (said.kind !== 'none') {
      if (questions.get(id) === question) questions.delete(id);
      // A late answer is newer than what is known all the same: Docker may be slow with each of them.
      if (question.isOld) want(id);
    }
    if (said.kind === 'answer') return said;
    if (said.kind === 'failed') {
      if (isOfOne(said.error)) askLater(id, signal);
      else if (question.isLate) want(id);
      else throw said.error;
    }
    const why = unanswered.get(id);
    return { kind: 'none', why: why === undefined ? null : `Docker does not describe container ${name}: ${why}` };
  }

  /** Once, however often it could not be described meanwhile. */
  function askLater(id: string, signal: AbortSignal): void {
    if (broken.has(id)) return;
    broken.add(id);
    void sleep(times.brokenMs, signal).then(() => {
      broken.delete(id);
      want(id);
    });
  }

  return {
    ask,
    outdate(container) {
      for (const question of container === null ? questions.values() : [questions.get(container)])
        if (question !== undefined) question.isOld = true;
    },
    keep(ids) {
      for (const gone of [unanswered, questions]) for (const id of gone.keys()) if (!ids.has(id)) gone.delete(id);
    },
  };
}

/** Docker is there, and can't describe this container (500: "RWLayer of container ... is unexpectedly nil"). */
function isOfOne(error: unknown): boolean {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number';
}
