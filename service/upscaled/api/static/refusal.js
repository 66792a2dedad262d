// A request that brought no picture. errors.js, which words what the server says, is loaded once it says something.

const UNREACHABLE = { title: "The server did not answer.", advice: "It may have stopped, or the connection broke. Check the network and send again." };
const UNREADABLE = { title: "The file can no longer be read.", advice: "It was changed, moved or deleted after it was chosen. Choose it again." };
const NO_KEY = { title: "This is no API key.", advice: "It has characters that no key has. Copy it again, from upk_ to its last letter." };

/* `code` is empty where the answer was not the API's own, and `status` is 0 where there was none.
   `explanation`: { title, advice, details? } for the user. */
export class Refusal extends Error {
  constructor({ status = 0, code = "", retryAfterS = 0, explanation = UNREACHABLE } = {}) {
    super(explanation.title);
    Object.assign(this, { status, code, retryAfterS, explanation });
  }

  static ofFile() {
    return new Refusal({ explanation: UNREADABLE });
  }

  static ofKey() {
    return new Refusal({ code: "invalid_auth_token", explanation: NO_KEY });
  }
}
