/** Notices of COPY … FROM with ON_ERROR ignore: each part counts its own rows, and the client hears of all of them at once. */
import type { ReferenceTable, ShardedTable } from '../catalog/map.ts';
import { encodeErrorFields, encodeNoticeResponse, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import type { FrameWriter } from '../wire/frame-writer.ts';
import { inClientsTerms, type PartOrigin } from './copy-errors.ts';

const SUM = /^(\d+) rows? (?:was|were) skipped due to data type incompatibility$/;
const ONE = /^(skipping row due to data type incompatibility at line )(\d+)( for column .*)$/s;

export class CopyNotices {
  readonly #table: ShardedTable | ReferenceTable;
  #skipped = 0;

  constructor(table: ShardedTable | ReferenceTable) {
    this.#table = table;
  }

  /** A notice of a part. */
  pass(frame: FrameReader, origin: PartOrigin, writer: FrameWriter): void {
    const { fields } = inClientsTerms(readErrorFields(frame), this.#table, origin);
    const message = fields.get('M') ?? '';
    const sum = SUM.exec(message);
    if (sum) {
      this.#skipped += Number(sum[1]);
      return;
    }
    const one = ONE.exec(message);
    if (one) fields.set('M', `${one[1]}${origin.lineOf(Number(one[2]))}${one[3]}`);
    encodeErrorFields(writer, 'N', fields);
  }

  end(writer: FrameWriter): void {
    const count = this.#skipped;
    if (count === 0) return;
    const rows = count === 1 ? '1 row was' : `${count} rows were`;
    encodeNoticeResponse(writer, 'NOTICE', '00000', `${rows} skipped due to data type incompatibility`);
  }
}
