import { createHash } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { messageOf } from '../../../controller/model/errors.ts';
import type { Certificate } from '../../certificates.ts';
import type { Pem } from './wanted.ts';

/** HAProxy refuses its whole configuration for one bad certificate, so each is tried before. */
export function checkCertificate(name: string, found: Certificate | null): Pem | { readonly problem: string } {
  if (found === null) return { problem: `there is no certificate ${name}` };
  const text = `${found.certificate.trim()}\n${found.key.trim()}\n`;
  try {
    createSecureContext({ cert: found.certificate, key: found.key });
  } catch (error) {
    return { problem: `the certificate ${name} or its key can't be used: ${messageOf(error)}` };
  }
  return { text, digest: createHash('sha256').update(text).digest('hex') };
}
