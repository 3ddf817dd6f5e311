"""MQTT only: start mosquitto, name the topics, and move (topic, bytes) with a session. Knows no tensor and no plan."""
