import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorCodes } from '../../controller/model/errors.ts';
import { optionShapes } from '../../controller/model/options.ts';
import { settingNames } from '../../controller/model/settings.ts';

const read = (path: string) => readFileSync(join(import.meta.dirname, '../..', path), 'utf8');

describe('the documents', () => {
  it('explain every error code, and no other', () => {
    const documented = [...read('docs/errors.md').matchAll(/^\| `([a-z-]+)` \|/gm)].map((match) => match[1]);
    assert.deepEqual(documented.toSorted(), [...errorCodes].toSorted());
  });

  it('name every driver option and setting in the README', () => {
    const readme = read('README.md');
    for (const shape of optionShapes) assert.ok(readme.includes(`\`${shape.split('=')[0]}`), shape);
    for (const name of settingNames) assert.ok(readme.includes(`\`${name}`), name);
  });
});
