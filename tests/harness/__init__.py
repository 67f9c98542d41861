"""What tests, benchmarks and demonstrations share: how they wait, run ``migrate``, and judge what came of it."""
