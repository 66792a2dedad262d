// Figures as people read them.

const number = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits });

export function describeBytes(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  if (bytes < 999_500) return `${number(bytes / 1000, 0)} kB`;
  return `${number(bytes / 1e6, 1)} MB`;
}

export const describeSize = ({ width, height }) => `${width} × ${height} px`;

export function describeSeconds(seconds) {
  if (seconds < 0.9995) return `${number(seconds * 1000, 0)} ms`;
  return `${number(seconds, seconds < 10 ? 1 : 0)} s`;
}

// A Server-Timing header as [{ name, seconds }].
export function readServerTiming(header) {
  return [...(header ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, ms]) => ({ name, seconds: ms / 1000 }));
}

// "cat.jpg" and "image/png" make "cat-x4.png".
export function nameResult(fileName, scale, mediaType) {
  const extension = mediaType.replace("image/", "").replace("jpeg", "jpg");
  return `${fileName.replace(/\.[^.]*$/, "") || "picture"}-x${scale}.${extension}`;
}

// "https://host/cats/black%20cat.jpg?size=2" makes "black cat.jpg".
export function nameAddress(address) {
  const { pathname, hostname } = new URL(address);
  const name = pathname.split("/").at(-1) || hostname;
  try {
    return decodeURIComponent(name).replaceAll("/", "_");
  } catch { // a stray per cent sign
    return name;
  }
}
