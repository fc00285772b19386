// "Was this right?" under an answer, without a reload.

const [form, judged, token] = ["feedback", "judged", "token"].map((id) => document.getElementById(id));
const FINAL = [404, 409, 410]; // this answer can be judged no more

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  send(new FormData(form, event.submitter));
});

// Ask about a new answer: whose it is, is in its headers.
export function askWhetherRight(label, headers) {
  if (!form) return;
  form.reset();
  form.instance.value = headers.get("X-Instance-Id") ?? "";
  form.ordinal.value = headers.get("X-Request-Ordinal") ?? "";
  form.querySelector("#yes").value = label;
  for (const option of form.querySelectorAll("option")) option.disabled = option.value === label;
  for (const details of form.querySelectorAll("details")) details.open = false;
  const own = form.querySelector("#feedback-token");
  if (own) own.disabled = own.parentElement.hidden = true; // the field that the answer was asked with will do
  form.hidden = false;
  judged.textContent = "";
}

async function send(data) {
  if (token && !data.get("token")) data.set("token", token.value);
  const asked = form.ordinal.value;
  const say = (text, last) => {
    if (form.ordinal.value !== asked) return; // another answer has come meanwhile
    judged.textContent = text;
    form.hidden = last;
  };
  try {
    const response = await fetch("feedback", { method: "POST", body: data, headers: { Accept: "application/json" } });
    const body = (await response.json().catch(() => null)) ?? {}; // a proxy's refusal is no JSON
    if (response.ok && body.outcome) return say(thanksFor(body), true);
    say(`Not counted: ${body.detail ?? `the service answers ${response.status}`}`, FINAL.includes(response.status));
  } catch {
    say("Not counted: no answer came back. Try again.", false);
  }
}

// As the template's macro.
function thanksFor({ outcome, label, predicted, kept }) {
  const truth = outcome === "wrong" ? `: ${label}, not ${predicted}` : "";
  return `Thank you. Counted as ${outcome}${truth}.${kept ? " The picture is kept." : ""}`;
}
