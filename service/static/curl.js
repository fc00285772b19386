// The curl line that asks the same, with a button that copies it.

const [token, curl, copy] = ["token", "curl", "copy"].map((id) => document.getElementById(id));

document.documentElement.classList.add("js");

// options: of curl, with what is sent.
export function offerCurl(options) {
  const address = new URL("predict", location.origin + location.pathname);
  const bearer = token ? "-H 'Authorization: Bearer TOKEN' " : "";
  curl.textContent = `curl ${bearer}${options} ${address}`;
  copy.textContent = "Copy";
}

copy.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(curl.textContent);
    copy.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(curl); // over plain HTTP there is no clipboard: select it, and try the old way
    copy.textContent = document.execCommand("copy") ? "Copied" : "Selected";
  }
});
