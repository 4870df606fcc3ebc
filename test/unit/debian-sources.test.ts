import assert from 'node:assert/strict';
import { rewriteSources } from '../../packaging/debian.ts';

const sources = [
  'Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main',
  'Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n',
].join('\n\n');

describe('Debian sources', () => {
  it('get other components, and more suites beside each release', () => {
    assert.equal(
      rewriteSources(sources, ['main', 'contrib'], ['backports']),
      [
        'Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-backports bookworm-updates\nComponents: main contrib',
        'Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main contrib\n',
      ].join('\n\n'),
    );
  });

  it('become those of another release, its main suite only', () => {
    assert.equal(
      rewriteSources(sources, ['main'], { release: 'bullseye' }),
      'Types: deb\nURIs: http://mirror.example/debian\nSuites: bullseye\nComponents: main',
    );
  });
});
