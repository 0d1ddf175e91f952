/** Downloads a file; with `report`, calls it with the fraction downloaded. A file without checksum is not taken from the cache. */
export async function download({ url, integrity = "", cache = integrity ? "default" : "no-cache" }, size = 0, report = null) {
  const response = await fetch(url, { integrity, cache }).catch((error) => ({ status: "", statusText: error.message }));
  if (!response.ok) throw new Error(`${url} could not be loaded: ${response.status} ${response.statusText}`);
  if (!report) return response.arrayBuffer();
  const bytes = new Uint8Array(size), reader = response.body.getReader();
  for (let at = 0, part; !(part = await reader.read()).done; at += part.value.length) {
    bytes.set(part.value, at);
    report(at / size);
  }
  return bytes;
}
