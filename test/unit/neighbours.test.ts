import assert from 'node:assert/strict';
import { type Neighbour, partings } from '../../controller/model/neighbours.ts';

const of = (name: string, networks: readonly string[], labels: Record<string, string> = {}): Neighbour => ({
  ...{ name, networks, labels },
});

describe('who is left behind by a move', () => {
  it('are those that share a network and have no link to the other, either way', () => {
    const db = of('db', ['shop', 'back'], { 'flock.service': 'db' });
    const web = of('web', ['shop']);
    const [text, ...more] = partings([db], [web, of('other', ['elsewhere']), of('job', ['back'])]);
    assert.match(text ?? '', /^db shares network shop, back with web, job: /);
    assert.deepEqual(more, []);
    const linked = of('web', ['shop'], { 'flock.link': '5432 -> db:5432' });
    assert.deepEqual(partings([db], [linked]), []);
    const named = of('web', ['shop'], { 'flock.service': 'web' });
    assert.deepEqual(partings([of('db', ['shop'], { 'flock.link.a': '80 -> web:80' })], [named]), []);
    assert.equal(partings([of('db', ['shop'])], [linked]).length, 1, 'the link leads elsewhere');
  });

  it('are named up to a number', () => {
    const many = Array.from({ length: 9 }, (_, index) => of(`c${index}`, ['shop']));
    assert.match(partings([of('db', ['shop'])], many)[0] ?? '', /with c0, c1, c2, c3, c4, c5 and 3 more: /);
  });
});
