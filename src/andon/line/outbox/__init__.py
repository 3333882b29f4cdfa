"""What other machines and people are told: MQTT, webhooks, e-mail. Judging never waits for it."""
