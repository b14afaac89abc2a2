"""Models of others, asked over HTTP: one thin chat client for every endpoint that speaks OpenAI's format. No torch."""
