import { basename, join } from 'node:path';
import { build, type Plugin } from 'esbuild';
import { repository } from './paths.ts';

/** Where each program of an image starts: /flock/NAME.js. */
export type Entries = Readonly<Record<string, string>>;

export const pluginEntries: Entries = {
  plugin: join(repository, 'plugin/main.ts'),
  watchdog: join(repository, 'plugin/watchdog.ts'),
  carrier: join(repository, 'plugin/peer/carrier-process.ts'),
  flockctl: join(repository, 'controller/cli/main.ts'),
};

export const proxyEntries: Entries = {
  proxy: join(repository, 'proxy/main.ts'),
  haproxy: join(repository, 'proxy/haproxy-main.ts'),
  controller: join(repository, 'controller/program/main.ts'),
};

/**
 * dockerode can also talk to Docker over ssh and feed BuildKit over gRPC; flock does neither, and these packages are large
 * and bring native code. zod's messages are wanted in English only, which it imports by itself.
 */
const leftOut = /^(ssh2|cpu-features|@grpc\/grpc-js|@grpc\/proto-loader|protobufjs|(\.\.\/)+locales\/index\.js)$/;

const emptyModules: Plugin = {
  name: 'empty-modules',
  setup(builder) {
    builder.onResolve({ filter: leftOut }, ({ path }) => ({ path, namespace: 'empty' }));
    builder.onLoad({ filter: /.*/, namespace: 'empty' }, () => ({ contents: 'module.exports = {};' }));
  },
};

export type Script = { readonly name: string; readonly contents: Uint8Array };

/**
 * A program as JavaScript for Node 24: NAME.js with everything in it, and a file more for what it loads only when it runs. Names and
 * lines are kept: they make stack traces worth sending.
 */
export async function bundle(name: string, entry: string): Promise<readonly Script[]> {
  const result = await build({
    entryPoints: { [name]: entry },
    outdir: '/',
    chunkNames: `${name}-[hash]`,
    bundle: true,
    splitting: true,
    write: false,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // CommonJS packages inside an ES module still call require() for Node's own modules.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    legalComments: 'none',
    plugins: [emptyModules],
    logLevel: 'error',
  });
  return result.outputFiles.map(({ path, contents }) => ({ name: basename(path), contents }));
}
