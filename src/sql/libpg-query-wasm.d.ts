/** The compiled module inside libpg-query, which the package ships but does not type: one instance a call. */
declare module 'libpg-query/wasm/libpg-query.js' {
  export interface PgQueryInstance {
    /** The instance's whole memory; it grows and never shrinks. */
    readonly HEAPU8: Uint8Array;
    getValue(pointer: number, type: 'i32'): number;
    UTF8ToString(pointer: number): string;
    stringToUTF8(text: string, pointer: number, bytesMax: number): void;
    _malloc(bytes: number): number;
    _free(pointer: number): void;
    _wasm_parse_query_raw(text: number): number;
    _wasm_free_parse_result(result: number): void;
  }
  export default function instantiate(): Promise<PgQueryInstance>;
}
