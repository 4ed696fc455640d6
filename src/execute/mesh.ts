/** What a session knows of the mesh (src/mesh/SPEC.md): that there is one as the cluster is now, and how to get into it. */
import type { NodePool } from '../backend/pool.ts';
import type { PosternError } from '../base/errors.ts';

/** Meshes count as nodes of their own: where the mesh of node 3 is meant, its number stands upon this. */
export const MESH_NODE_BASE = 1_000_000;

export interface Mesh {
  /**
   * One that shows every table as it is by now; `fresh`: what was known before is not believed. Rejects with 0A000 if the nodes
   * can't have one, or with the error of a node that is away.
   */
  ready(options?: { readonly fresh?: boolean }): Promise<ReadyMesh>;
  /** Something may have changed that is not known of yet. */
  invalidate(): void;
  /** A mesh's database is not there any more. */
  forget(): void;
}

export interface ReadyMesh {
  /** Connections to its database, where clients have their own role. */
  readonly pool: NodePool;
  /** Rises with each change. */
  readonly version: number;
  /** Why a statement can't be answered there that uses these relations and functions by name; undefined: it can. */
  refusalOf(use: {
    readonly names: readonly string[];
    readonly functions: readonly string[];
    readonly namesCollation: boolean;
  }): PosternError | undefined;
  /** The columns of a table, by name; undefined: there is none of that name, or several. */
  columnsOf(schema: string | undefined, name: string): ReadonlyMap<string, MeshColumn> | undefined;
}

export interface MeshColumn {
  /** As format_type() prints it. */
  readonly type: string;
  readonly collation: string | null;
  /** An index begins with it. */
  readonly leadsIndex: boolean;
}

export function isMesh(nodeId: number | undefined): boolean {
  return nodeId !== undefined && nodeId > MESH_NODE_BASE;
}
