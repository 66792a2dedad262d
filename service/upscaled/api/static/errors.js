// Every error of the API in plain words: what happened, and what to do about it.

import { adviseOnFile, adviseOnSide, adviseOnSmallSide } from "./limits.js";
import { Refusal } from "./refusal.js";

const WORDS = {
  invalid_request_body: ["The picture did not arrive whole.", "Send it again. If it happens every time, something between you and the server changes or cuts off what you send."],
  missing_parameter: ["Something was missing from the request.", "Choose a picture and a size, then send again."],
  invalid_parameter: ["The server cannot work with this picture as it is.", adviseOnSmallSide()],
  unsupported_content_type: ["The request arrived in a form the server does not take.", "Reload the page and send again. Something in between may have changed the request."],
  malformed_image: ["This file is no picture, or it is damaged.", "Open it on your computer. If it shows there, save it anew as JPEG or PNG and try that file."],
  unsupported_image_format: ["This kind of picture is not supported.", "Save it as JPEG, PNG or WebP and try again."],
  file_size_too_large: ["The file is too large.", adviseOnFile()],
  resolution_too_high: ["The picture has too many pixels for this enlargement.", "Choose a smaller picture."],
  unknown_foreground: ["The server found nothing in the picture to work on.", "Try another picture."],
  invalid_auth_token: ["The server does not know this API key.", "Check that it is complete, from upk_ to its last letter, and that it was not revoked."],
  insufficient_api_credits: ["This API key has no credits left.", "The server's operator can add some: upscaled credits add NAME N"],
  not_found: ["There is nothing at this address.", "The server may have been moved or updated: reload the page."],
  method_not_allowed: ["The server does not take this kind of request here.", "The server may have been updated: reload the page."],
  request_in_progress: ["The same request is still being worked on.", "Try again in a few seconds."],
  rate_limit_exceeded: ["The server is busy, or you were too fast.", "Try again in a moment."],
  internal_error: ["Something went wrong in the server.", "Your picture is probably not the cause. Try again; if it stays so, give the request's number below to the operator of the server."],
};
const NO_MODEL = ["The server cannot take this model.", "Choose another model, or let the server choose."];
const NO_ADDRESS = ["The server could not fetch the picture.", "Check the address. A server fetches nothing from inside its own network, unless its operator allows it."];
const NO_HOST = ["The server takes no requests under this name.", "Open the page by localhost or the server's address. Its operator can allow the name by UPSCALED_ALLOWED_HOSTS."];
const NO_SCOPE = ["This API key may not be used for this.", "The server's operator can make one with the scope: upscaled keys create NAME --scopes upscale"];
const FOREIGN = ["Something between you and the server refused the request.", "A proxy in front of the server may limit the size or the time of a request. Ask its operator."];

/* The Refusal in an answer, which need not be the API's own, nor JSON. `scale`: what was asked for, where a
   scale was. */
export function readRefusal({ status, body, requestId = "", retryAfterS = 0, scale = 0 }) {
  let answer = null;
  try {
    answer = JSON.parse(body);
  } catch { /* a proxy's page, say */ }
  const [code, text] = [answer?.error_code, answer?.error].map((value) => (typeof value === "string" ? value : ""));
  const explanation = explain({ status, code, text, requestId, retryAfterS, scale });
  return new Refusal({ status, code, retryAfterS, explanation });
}

function explain({ status, code, text, requestId, retryAfterS, scale }) {
  let [title, advice] = WORDS[code] ?? FOREIGN;
  if (text.startsWith("X-Upscale-Model")) [title, advice] = NO_MODEL;
  if (text.startsWith("image_url")) [title, advice] = NO_ADDRESS;
  if (text.startsWith("Host or Origin")) [title, advice] = NO_HOST;
  if (text.startsWith("API Token not allowed")) [title, advice] = NO_SCOPE;
  if (code === "resolution_too_high") advice = adviseOnSide(scale);
  if (retryAfterS) advice = `Try again in ${retryAfterS} ${retryAfterS === 1 ? "second" : "seconds"}.`;
  const details = [text && `The server says: ${text}`, code || `status ${status}`, requestId && `request ${requestId}`];
  return { title, advice, details: details.filter(Boolean).join(" · ") };
}
