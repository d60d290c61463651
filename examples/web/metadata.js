// Reads the metadata of an ONNX file. onnxruntime-web does not return it, so the protobuf message is read here:
// ModelProto.metadata_props is field 14, a message of key (field 1) and value (field 2).

export function readMetadata(bytes, name) {
  const entries = {};
  for (const [field, value] of fields(bytes, name)) {
    if (field !== 14) continue;
    const entry = Object.fromEntries(fields(value, name));
    entries[text(entry[1])] = text(entry[2]);
  }
  return entries;
}

const text = (bytes) => new TextDecoder().decode(bytes ?? new Uint8Array());

// All fields of a message as [number, value]; the value of a message or a string is its bytes.
function fields(bytes, name) {
  const found = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error(`${name} is not an ONNX file, or it is cut short`);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const [field, type] = [Math.floor(key / 8), key % 8];
    if (type === 0) found.push([field, varint()]);
    else if (type === 1) at += 8;
    else if (type === 5) at += 4;
    else if (type === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new Error(`${name} is not an ONNX file, or it is cut short`);
      found.push([field, bytes.subarray(at, at + length)]);
      at += length;
    } else throw new Error(`${name} is not an ONNX file`);
  }
  return found;
}
