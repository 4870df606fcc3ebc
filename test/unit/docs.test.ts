import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Router } from 'express';
import * as api from '../../controller/model/api.ts';
import * as controllerApi from '../../controller/model/controller-api.ts';
import { errorCodes } from '../../controller/model/errors.ts';
import { optionShapes } from '../../controller/model/options.ts';
import * as proxyApi from '../../controller/model/proxy-api.ts';
import { settingNames } from '../../controller/model/settings.ts';
import { createMoveRoutes } from '../../controller/moves/api.ts';
import { workloadRoutes } from '../../controller/program/routes.ts';
import { volumeRoutes } from '../../plugin/server/api.ts';
import { clusterRoutes } from '../../plugin/server/cluster-api.ts';
import { memberRoutes } from '../../plugin/server/member-api.ts';
import { createProxyApi } from '../../proxy/api/api.ts';

/** Nothing is asked of what the routes are made with. */
const nothing = { tools: {} } as never;
const served = {
  'The controller': [workloadRoutes(nothing), createMoveRoutes(nothing)],
  'The plugin': [
    volumeRoutes(nothing, nothing, nothing, false),
    clusterRoutes(nothing),
    memberRoutes(nothing, nothing, false),
  ],
  'The proxy': [createProxyApi(nothing).router as unknown as Router],
};

/** As the documents write it: `GET /v1/volumes/NAME`. */
function callsOf({ stack }: Pick<Router, 'stack'>): readonly string[] {
  return stack.flatMap(({ route, handle }) => {
    const inner = (handle as Partial<Router> | undefined)?.stack;
    if (route === undefined) return inner === undefined ? [] : callsOf({ stack: inner });
    const path = route.path.replaceAll(/:[a-z]+/g, (name) => name.slice(1).toUpperCase());
    return route.stack.map(({ method }) => `${method.toUpperCase()} ${path}`);
  });
}

const read = (path: string) => readFileSync(join(import.meta.dirname, '../..', path), 'utf8');

describe('the documents', () => {
  it('explain every error code, and no other', () => {
    const documented = [...read('docs/errors.md').matchAll(/^\| `([a-z-]+)` \|/gm)].map((match) => match[1]);
    assert.deepEqual(documented.toSorted(), [...errorCodes].toSorted());
  });

  it('have every call of the programs, and no other, where it belongs', () => {
    const text = read('docs/api.md');
    for (const [title, routers] of Object.entries(served)) {
      const section = text.split(/^## /m).find((one) => one.startsWith(`${title}\n`)) ?? '';
      const documented = [...section.matchAll(/^\| `([A-Z]+ [^`]+)` \|/gm)].map((match) => match[1] ?? '');
      assert.deepEqual(documented.toSorted(), routers.flatMap(callsOf).toSorted(), title);
    }
    assert.match(read('README.md'), /\(docs\/api\.md\)/);
  });

  it('name only answers that there are in what the API is said to answer', () => {
    const known = new Set([api, proxyApi, controllerApi].flatMap((schemas) => Object.keys(schemas)));
    const named = [...read('docs/api.md').matchAll(/`([a-zA-Z]+View)`/g)].map((match) => match[1] ?? '');
    assert.ok(named.length > 0);
    assert.deepEqual(
      named.filter((name) => !known.has(name)),
      [],
    );
  });

  it('name every driver option and setting in the README', () => {
    const readme = read('README.md');
    for (const shape of optionShapes) assert.ok(readme.includes(`\`${shape.split('=')[0]}`), shape);
    for (const name of settingNames) assert.ok(readme.includes(`\`${name}`), name);
  });
});
