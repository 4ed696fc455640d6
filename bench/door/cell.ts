/** What each file of this folder exports. */
export interface DoorCell {
  /** One round: figures by the names that they have in the result. */
  run(quick: boolean): Promise<Readonly<Record<string, number>>>;
}
