import type { Commands } from '../../../plugin/exec.ts';
import { rejectOurs } from './docker-rule.ts';
import { hostTable } from './layout.ts';
import { createLinks, type LocalPlace } from './links.ts';
import { createNft } from './nft.ts';

/**
 * Takes away all that a kernel layer has made on this host and in its containers, for when the proxy goes for good. Routes'
 * connections go on as long as others, such as Docker, have tables for translation, too; those of links end. Throws CommandError.
 */
export async function removeKernelLayer(parts: {
  readonly commands: Commands;
  readonly folder: string;
  readonly hostRoot: string;
  readonly containers: ReadonlyMap<string, LocalPlace>;
}): Promise<void> {
  const { commands, folder, hostRoot, containers } = parts;
  const nft = createNft(commands, folder);
  // Without it nothing can have been made.
  if ((await nft.read()) === null) return;
  await nft.run(`add table ip ${hostTable}\ndelete table ip ${hostTable}`);
  await createLinks({ commands, nft, hostRoot }).sync([], containers);
  await rejectOurs(commands);
}
