package peer

// AnswerDespiteIntent breaks the rule that a device with an intent answers no to
// KEEP?, to show that the tests would notice.
func AnswerDespiteIntent(e *Exchange) { e.intents.deny = func(bool) bool { return false } }
