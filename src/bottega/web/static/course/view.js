// An interactive view: its settings are sent whenever they change, and the picture follows.

export function live(form) {
  const figures = document.querySelector("#view-figures");
  const state = document.querySelector("#view-state");
  let timer = 0;
  let sent = null;

  async function show() {
    sent?.abort();
    sent = new AbortController();
    const mine = sent;
    const query = new URLSearchParams(new FormData(form));
    state.textContent = "Computing …";
    try {
      const answer = await fetch(`${location.pathname}?${query}`, { signal: mine.signal });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      figures.replaceChildren(...page.querySelector("#view-figures").childNodes);
      history.replaceState(null, "", `?${query}`);
      state.textContent = "";
    } catch (error) {
      if (error.name !== "AbortError") state.textContent = "The server does not answer.";
    }
  }

  form.addEventListener("input", () => {
    clearTimeout(timer);
    if (form.checkValidity()) timer = setTimeout(show, 250);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    show();
  });
  if (document.querySelector("#view-empty")) show();
}
