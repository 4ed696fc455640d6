import { expect, it } from 'vitest';
import { readAuthentication } from './router-auth.ts';

const rules =
  'local all all peer\nhostssl all all all scram-sha-256\nhostssl all all all cert\nhost all all all md5';
const notes = (tls?: { clientCaFile?: string }) =>
  readAuthentication({ users: [], authentication: { rules }, tls }).notes;

it('says which rules let nobody in', () => {
  const local = 'hba, line 1: passed over, the router listens on no Unix socket';
  const without = ': fits nobody, there is no tls: with clients';
  expect(notes()).toEqual([local, `hba, line 2${without}`, `hba, line 3${without}`]);
  expect(notes({})).toEqual([
    local,
    'hba, line 3: lets nobody in, tls.client_ca_file says by whom certificates have to be signed',
  ]);
  expect(notes({ clientCaFile: 'ca.crt' })).toEqual([local]);
});
