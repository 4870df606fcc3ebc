import { connect } from 'node:net';
import { FlockError, messageOf } from '../../../controller/model/errors.ts';
import { answersIn, endAnswer, endQuestion, linesOf } from './commands.ts';

/** HAProxy's master, over its socket: the way to every worker, those that a reload has left behind, too. */
export type Master = {
  /** Answers of one worker, one per command, in order. Throws `not-ready` if HAProxy is away, does not answer, or knows no such worker. */
  ask(pid: number, commands: readonly string[]): Promise<readonly string[]>;
  /** What the master says of its processes. */
  processes(): Promise<string>;
  /** Returns when HAProxy has taken it up; it is not done then. */
  reload(): Promise<void>;
};

/** For one line of commands. */
const answerMsMax = 10_000;
/** 10,000 entries of a map are about 1 MB. */
const answerBytesMax = 64 * 1024 * 1024;

export function createMaster(path: string): Master {
  /** Writes one line after the other, each when the one before is answered; an answer ends with `end`, or when HAProxy closes (null). */
  function talk(lines: readonly string[], end: string | null): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      const answers: string[] = [];
      let text = '';
      const finish = () => {
        clearTimeout(timer);
        socket.destroy();
      };
      const fail = (reason: string, cause?: unknown) => {
        finish();
        const said = text === '' ? '' : `, after "${text.slice(0, saidMax).trim()}"`;
        reject(new FlockError('not-ready', `HAProxy at ${path}: ${reason}${said}`, {}, { cause }));
      };
      const timer = setTimeout(() => fail(`no answer within ${answerMsMax} ms`), answerMsMax);
      const next = () => {
        const line = lines[answers.length];
        if (line === undefined) {
          finish();
          resolve(answers);
          return;
        }
        timer.refresh();
        socket.write(`${line}\n`);
      };
      socket.setEncoding('utf8');
      socket.on('connect', next);
      socket.on('data', (piece: string) => {
        text += piece;
        if (text.length > answerBytesMax) return fail(`an answer of more than ${answerBytesMax} bytes`);
        if (end === null || !text.endsWith(end)) return;
        answers.push(text.slice(0, -end.length));
        text = '';
        next();
      });
      socket.on('error', (error) => fail(messageOf(error), error));
      socket.on('close', () => {
        if (end === null) {
          finish();
          resolve([text]);
        } else if (answers.length < lines.length) fail('it closed the connection before it had answered');
      });
    });
  }

  return {
    async ask(pid, commands) {
      if (commands.length === 0) return [];
      const lines = linesOf(commands);
      // Adding servers counts as experimental in HAProxy 2.6.
      const texts = lines.map((some) => `experimental-mode on; @!${pid}; ${some.join('; ')}; ${endQuestion}`);
      const blocks = await talk(texts, endAnswer);
      return blocks.flatMap((block, index) => {
        const some = lines[index] ?? [];
        const answers = answersIn(block, some.length);
        if (answers !== null) return answers;
        throw new FlockError('not-ready', `HAProxy at ${path} answers "${some[0]} ..." with "${block.trim()}"`);
      });
    },
    async processes() {
      const [answer = ''] = await talk(['show proc'], '\n\n');
      return answer;
    },
    async reload() {
      await talk(['reload'], null);
    },
  };
}

const saidMax = 200;
