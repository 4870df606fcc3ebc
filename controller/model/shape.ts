import { z } from 'zod';
import { messageOf } from './errors.ts';

/** The text of anything thrown while text was parsed, for people: zod's own is JSON of several lines. */
export function parseProblemOf(error: unknown): string {
  if (!(error instanceof z.ZodError)) return messageOf(error);
  const [issue] = error.issues;
  if (issue === undefined) return 'wrong shape';
  const where = issue.path.length === 0 ? 'the whole' : JSON.stringify(issue.path.join('.'));
  return `${where}: ${issue.message.slice(0, textMax)}`;
}

const textMax = 200;
