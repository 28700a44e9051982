# Notices of publication (CloudEvents 1.0), `events.sns_topic` of the profile.

resource "aws_sns_topic" "publications" {
  name              = "${var.name}-publications"
  kms_master_key_id = "alias/aws/sns"
  tags              = var.tags
}

data "aws_iam_policy_document" "topic" {
  source_policy_documents = concat(
    [templatefile("${path.module}/policies/topic.json", local.names)],
    length(var.consumer_principals) == 0 ? [] : [
      templatefile("${path.module}/policies/topic-consumers.json", local.names)
    ],
  )
}

resource "aws_sns_topic_policy" "publications" {
  arn    = aws_sns_topic.publications.arn
  policy = data.aws_iam_policy_document.topic.json
}
