/** The bytes behind base64 text. */
export function bytes(text) {
  const binary = atob(text);
  const result = new Uint8Array(binary.length);
  for (let k = 0; k < binary.length; k += 1) result[k] = binary.charCodeAt(k);
  return result.buffer;
}
