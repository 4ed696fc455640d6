/** Where the compiled file of a thread is. */
import { fileURLToPath } from 'node:url';

/** A thread can't load TypeScript: from a checkout that runs unbuilt (tests, tsx) it is the built file that is taken. */
export function threadFile(name: 'generator.worker' | 'metronome.worker'): URL {
  const unbuilt = fileURLToPath(import.meta.url).endsWith('.ts');
  return new URL(unbuilt ? `../../../dist/wall/load/${name}.js` : `./${name}.js`, import.meta.url);
}
