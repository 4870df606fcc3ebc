import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';
import { mutations } from './mutations.ts';

/** Loaded before everything else (`--import`): puts the fault that MUTATION names into its file as that is loaded. */
const wanted = process.env['MUTATION'];
const mutation = mutations.find(({ name }) => name === wanted);
if (wanted !== undefined && mutation === undefined) throw new Error(`there is no mutation "${wanted}"`);
if (mutation !== undefined) {
  const { file, changes } = mutation;
  registerHooks({
    load(url, context, nextLoad) {
      if (!url.endsWith(`/${file}`)) return nextLoad(url, context);
      let source = readFileSync(fileURLToPath(url), 'utf8');
      for (const { from, to } of changes) {
        if (source.split(from).length !== 2) throw new Error(`${file}: "${from}" is not there once`);
        source = source.replace(from, to);
      }
      return { format: 'module-typescript', source, shortCircuit: true };
    },
  });
}
